"""One table of what retrieval gives: ways to read neighbours × databases × shots, over seeds, by one recipe."""
