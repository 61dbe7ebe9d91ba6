"""The judge: exact arithmetic, the laws, and cases aimed at trouble."""
