"""The OpenCodes that tests drive: real ones, the scripted model behind them, and the fakes of them."""
