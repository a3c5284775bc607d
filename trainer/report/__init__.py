"""HTML pages that open without a network: the report of a run or an evaluation, and the report on prepared data."""
