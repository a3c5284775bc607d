"""What reports are drawn with: sections of charts and tables, and the style of all charts."""
