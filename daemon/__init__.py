"""Everything that faces the folder and the operator: verbs, supervisor, broker, watching, submitting, explaining."""
