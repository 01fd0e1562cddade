"""Between text and registry: propositions, and questions that are answered from them."""
