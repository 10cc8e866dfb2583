"""The K local generators and their products on different devices."""
