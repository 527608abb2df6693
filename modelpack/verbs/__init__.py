"""The verbs: one module each, named as users write them."""
