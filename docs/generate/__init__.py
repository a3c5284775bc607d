"""Write the pages of docs/reference that come from the code: `python -m docs.generate`, or `make reference`.

Each module makes one page. `PAGES` in `pages.py` lists them. A unit test fails if a committed page is out of date.
"""
