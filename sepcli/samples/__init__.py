"""The sample: a key, named signals and JSON; in tars, folders, lists and packs."""
