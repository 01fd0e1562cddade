"""What a person is told of an endpoint that does not answer: its own words, and the setting that helps."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from swarm.backends.completion import Judgement
from swarm.backends.endpoint_body import named_field, remedy
from swarm.backends.timed_http import Answer
from swarm.config.engine import OpenAIEngine
from swarm.errors import nearest
from swarm.text import one_line


class Words:
    """Lines about one endpoint.

    Args:
        model: its name there.
        config: settings.
        key: never shown.
        proxy: that it is asked through, "" for none.
    """

    def __init__(self, model: str, config: OpenAIEngine, key: str | None, proxy: str) -> None:
        self._model, self._config, self._key = model, config, key
        self.who = f"the endpoint {config.url.rstrip('/')}"
        host = urlsplit(config.url).hostname
        self._by_proxy = (
            f"; it is asked through the proxy {self.quote(proxy)} that the environment names: correct that, or add "
            f"{host} to NO_PROXY"
            if proxy
            else ""
        )

    def quote(self, text: object, length: int = 100) -> str:
        """Return the beginning of a text from elsewhere, safe to print, without the key."""
        text = str(text)
        return one_line((text.replace(self._key, "[key]") if self._key else text)[: 10 * length])[:length]

    def nobody(self, answer: Answer, found: Judgement) -> str:
        """Return what to do where there is no endpoint at the address."""
        url, said = self._config.url, self.quote(found.said, 200)
        if not answer.status:
            return f"no endpoint at {url}: start it or correct engine.url ({said}){self._by_proxy}"
        what = "a web page" if "<" in said else "something else"
        return (
            f"what answers at {url} is {what} and no OpenAI-compatible endpoint: correct engine.url, which mostly ends "
            f"in /v1 ({said}){self._by_proxy}"
        )

    def no_answer(self, found: Judgement, patience_s: float, tries: int) -> str:
        """Return what happened instead of an answer for so long."""
        is_slow = found.said.startswith("timeout")
        way = "raise faults.call_timeout_s or lower engine.connections where it is only slow, " if is_slow else ""
        return (
            f"no answer from {self.who} for {patience_s:g} s ({self.quote(found.said, 300)}; tries: {tries}): {way}"
            f"raise faults.patience_s to wait longer{self._by_proxy}"
        )

    def refused_request(self, found: Judgement, sent: Mapping[str, Any]) -> str:
        """Return why a request is refused, and the setting of the field that is to blame."""
        name = named_field(found, sent)
        way = f"; {remedy(found.said, name, self._config)}" if name else ""
        return f"{self.who} refuses the request: {self.quote(found.said, 2000)}{way}"

    def refusal(self, found: Judgement, path: str, models: Sequence[str]) -> str:
        """Return why nothing will be answered, and what helps."""
        said = self.quote(found.said, 1000)
        match found.cause:
            case "credit":
                return f"{self.who} has no credit left for this key: pay, or ask another one ({said})"
            case "proxy":
                return f"something before {self.who} refuses requests, a proxy or a firewall ({said}){self._by_proxy}"
            case "address":
                return f"{self.who} does not serve {path}: correct engine.url ({said})"
            case "model":
                return (
                    f"{self.who} knows no model {self._model!r}, or no {path} ({said}){self._offer(models)}; correct "
                    "engine.model or engine.url, which mostly ends in /v1"
                )
        variable = self._config.key_env
        way = f"check what is in {variable}" if variable else "set engine.key_env to the variable that holds a key"
        return f"{self.who} refuses the key: {way} ({said}){self._by_proxy}"

    def _offer(self, names: Sequence[str]) -> str:
        if not names:
            return ""
        close = nearest(self._model, names[:1000])
        offer = ", ".join(self.quote(name) for name in names[:10]) + (", ..." if len(names) > 10 else "")
        return f"; it offers {offer}" + (f"; did you mean {self.quote(close)}?" if close else "")
