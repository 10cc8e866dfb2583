"""The K local generators, and fast forms of their products for different devices."""
