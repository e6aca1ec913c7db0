"""Locust's HttpUser (requests) asking for one page, as fast as it is answered."""

from locust import HttpUser, task


class Shopper(HttpUser):
    def on_start(self) -> None:
        self.client.verify = False

    @task
    def ask(self) -> None:
        self.client.get("/products/41")
