"""`minigen demo`: the whole chain in minutes, and the page that shows it."""
