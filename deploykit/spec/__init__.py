"""The types that stages hand to each other; no stage imports another, they meet here."""
