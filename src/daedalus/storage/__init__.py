"""Where rows come from and go to: sources, sinks and embedding stores."""
