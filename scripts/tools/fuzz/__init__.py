"""scripts/fuzz: bytes that nobody sends, to see whether what is promised holds for them too."""
