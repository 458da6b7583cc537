"""Training: service definitions compiled to an operator DAG, and the DAG run day by day."""
