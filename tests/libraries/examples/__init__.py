"""One module per library; each holds a `frame.Library` called LIBRARY and its two factories."""
