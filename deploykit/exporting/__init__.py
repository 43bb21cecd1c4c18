"""What belongs to one export as a whole: its options, its data, its evidence, its files."""
