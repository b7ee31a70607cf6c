"""More load than a network can take, and a validator that cannot keep up."""
