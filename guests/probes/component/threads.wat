;; Wants memory that threads share.
(component
  (core module (memory 1 1 shared))
  (component $nothing)
  (instance $empty (instantiate $nothing))
  (export "leasehold:policy/policy@0.1.0" (instance $empty)))
