"""Locust's FastHttpUser asking for one page, as fast as it is answered: what replay is measured beside."""

from locust import FastHttpUser, task


class Shopper(FastHttpUser):
    insecure = True

    @task
    def ask(self) -> None:
        self.client.get("/products/41")
