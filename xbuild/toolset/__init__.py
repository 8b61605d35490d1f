"""Sets of native programs that stand in for a tree's own, and which of them a tree may have."""
