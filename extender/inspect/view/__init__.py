"""A live view of pools and their nodes: one model, shown in a terminal and on a web page. For people."""
