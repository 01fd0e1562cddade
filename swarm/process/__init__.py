"""What a process of ours has around it: the limits of the machine, signals, children, and the terminal."""
