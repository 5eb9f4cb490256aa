"""Real servers on loopback, each test server with a data folder and a broker of its own."""
