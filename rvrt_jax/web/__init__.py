"""A page in the browser that restores films: `rvrt web`."""
