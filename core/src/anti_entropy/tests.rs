//! Full and partial syncs against a hand-made catalog.
