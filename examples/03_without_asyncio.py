"""Works without an event loop: every method that a script needs has a `*_sync` twin.

You will see two answers, the second of which knows of the first.
"""

from power_loop import StatefulAgentLoop, create_llm_service_from_env


def main() -> None:
    """Hold a short conversation, blocking."""
    with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = loop.new_session_sync()
        print(loop.send_sync("I am Ada. Greet me by name.", session_id=sid).final_text)
        print(loop.send_sync("What is my name?", session_id=sid).final_text)


if __name__ == "__main__":
    main()
