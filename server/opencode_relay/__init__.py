"""What runs on a provisioned relay: the agent that registers enrolled clients, and its administration."""
