"""A seeded, labelled image-text corpus and the loopback web server that serves it, hostile answers included."""
