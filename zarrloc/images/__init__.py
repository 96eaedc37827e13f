"""Everything outside the store: image files, label tables, and what their names say."""
