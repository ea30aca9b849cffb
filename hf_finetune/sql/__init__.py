"""What a recipe that writes SQL needs: reading a query from an answer, and marking it by what it gives."""

from hf_finetune.sql.marking import mark_query
from hf_finetune.sql.queries import REFUSAL, Dialect, accepted_queries, read_query, template
from hf_finetune.sql.sandbox import schema_text

__all__ = ["REFUSAL", "Dialect", "accepted_queries", "mark_query", "read_query", "schema_text", "template"]
