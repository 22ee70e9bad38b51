"""Tables for people."""


def tabulate(*args, **kwargs) -> str:
    """`tabulate.tabulate`, loaded with the first table and not with the package."""
    from tabulate import tabulate as print_table

    return print_table(*args, **kwargs)
