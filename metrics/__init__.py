"""How good generated images are. Networks and data sets are known only by calling them."""
