"""From stored records to batches."""
