"""Engines that let vLLM run the routing model: in this process's care, or at endpoints."""
