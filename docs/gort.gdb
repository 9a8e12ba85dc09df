# gort.gdb - look at a stuck process: gdb -p PID -x docs/gort.gdb. See HACKING.md.
#
#   allm DOM    the Ms of a domain, gort_python or gort_native
#   allp DOM    its Ps
#   allg DOM    its Gs that are alive and have a stack; gort_main_g and those that
#               have not started yet (GK_FRESH, in the queues only) are not among them
#   wake G      the wait word of a G, in words
#   chan C      a channel, and who waits on it; without spaces: chan (gort_chan*)0x55e0a8b0
#   waitq Q     who waits on the queue at this address, such as &m->q of a Mutex
#   gbt G       the C stack of a G that is not running (x86-64)
#
# Python stacks: call (void)fatal_print_goroutines(2) writes all of them to the
# stderr of the process.
set pagination off
set print address off

define wake
  set $w = $arg0->wake
  set $code = ($w >> 1) & 0x7f
  printf "seq %#lx, ", $w >> 24
  if $code == 0
    printf "not claimed, "
  else
    printf "claimed with code %d (WC_*) index %d, ", $code, ($w >> 8) & 0xffff
  end
  if $w & 1
    printf "parked\n"
  else
    printf "not parked\n"
  end
end

define allm
  set $m = $arg0.allm
  while $m
    printf "M%u thread %d:", $m->id, $m->tid
    if $m->idle
      printf " idle"
    end
    if $m->spinning
      printf " spinning"
    end
    if $m->curg
      printf " runs G %lu", $m->curg->id
    end
    if $m->p
      printf " owns P%d", $m->p->id
    end
    if $m->ts
      printf " holds the GIL"
    end
    if $m->lockedg
      printf " locked to G %lu", $m->lockedg->id
    end
    if $m->nextp
      printf " gets P%d", $m->nextp->id
    end
    if $m->nextg
      printf " gets G %lu", $m->nextg->id
    end
    printf " note %u\n", $m->note
    set $m = $m->alllink
  end
end

define allp
  printf "global queue %d, idle Ps %d, idle Ms %d, spinning %d, timer_m %p\n", $arg0.runqsize, $arg0.npidle, $arg0.nmidle, $arg0.nmspinning, $arg0.timer_m
  set $i = 0
  while $i < $arg0.nallp
    set $p = $arg0.allp[$i]
    printf "P%d status %d (P_*) tick %u, queue %u, timers %d", $p->id, $p->status, $p->schedtick, $p->runq_tail - $p->runq_head, $p->tm.n
    if $p->m
      printf ", of M%u", $p->m->id
    end
    if $p->runnext
      printf ", next G %lu", $p->runnext->id
    end
    printf "\n"
    set $i = $i + 1
  end
end

define allg
  set $pool = $arg0.stacks
  set $slab = $pool->first
  while $slab
    set $i = 0
    while $i < $slab->used
      set $i = $i + 1
      set $g = (struct G *)($slab->base + $i * $pool->size - $pool->ds_tail - $pool->ds_head - (sizeof(struct G) + 63) / 64 * 64)
      if $g->status != 0 && $g->status != 5
        printf "G %lu = (G *)%p: status %d (G_*) %s, ", $g->id, $g, $g->status, gort_reasons[$g->reason]
        wake $g
      end
    end
    set $slab = $slab->next
  end
end

define waitq
  set $s = (($arg0))->first
  while $s
    printf "  G %lu (kind %d) ticket %#lx index %d, ", $s->g->id, $s->g->kind, $s->ticket >> 24, $s->index
    wake $s->g
    set $s = $s->next
  end
end

define chan
  set $c = ($arg0)
  printf "dtype %d cap %lu count %lu closed %d shared %d lock %u\nreceivers:\n", $c->dtype, $c->cap, $c->count, $c->closed, $c->shared, $c->lock.v
  waitq (&$c->recvq)
  printf "senders:\n"
  waitq (&$c->sendq)
end

define gbt
  set $gbt_sp = $rsp
  set $gbt_pc = $rip
  set $gbt_bp = $rbp
  set $gbt_g = ($arg0)
  set $rip = *(long *)((char *)$gbt_g->sp + 48)
  set $rbp = *(long *)((char *)$gbt_g->sp + 40)
  set $rsp = (long)$gbt_g->sp + 56
  backtrace
  set $rsp = $gbt_sp
  set $rip = $gbt_pc
  set $rbp = $gbt_bp
end
