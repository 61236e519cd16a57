"""Real models, out of packages that carry them, each with a question whose right answer is known."""
