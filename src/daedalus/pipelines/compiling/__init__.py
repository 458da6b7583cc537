"""Parts of the compiler: which columns a contract needs, and how rolling specs become operators."""
