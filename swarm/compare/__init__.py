"""Arms against arms at equal compute: runs, analysis, plots, report."""
