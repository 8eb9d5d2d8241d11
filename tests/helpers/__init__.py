"""What several tests share. Import it as ``helpers``: ``tests`` is on the path."""
