"""What is asked: characters, requests, questions, and how they are split."""
