"""The pages without a gateway, and what notices are sent to."""
