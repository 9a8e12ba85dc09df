package main

// The counterpart of ../native/spawn.c.

func init() {
	perOp("native_spawn", batch, spawn)
}
