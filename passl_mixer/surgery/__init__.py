"""Networks changed or counted after they are built: other image sizes, pyramids of maps, convolutions only, MACs."""
