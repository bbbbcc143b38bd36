"""How the shipped language models were made."""
