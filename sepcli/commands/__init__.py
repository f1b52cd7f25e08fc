"""One module per subcommand: its options, and a few lines that call the library."""
