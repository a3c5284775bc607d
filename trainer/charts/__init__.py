"""The building blocks of reports: sections with charts and a table, and the style of all charts."""
