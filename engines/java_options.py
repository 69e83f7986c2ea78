"""Options of Java 17 for Flink, Spark and Beam's job servers."""

# Packages of Java that their serialisation opens, as Flink's and Spark's own scripts do.
_OPENED = (
  'java.io',
  'java.lang',
  'java.lang.invoke',
  'java.lang.reflect',
  'java.net',
  'java.nio',
  'java.text',
  'java.time',
  'java.util',
  'java.util.concurrent',
  'java.util.concurrent.atomic',
  'java.util.concurrent.locks',
  'jdk.internal.ref',
  'sun.net.util',
  'sun.nio.ch',
  'sun.nio.cs',
  'sun.security.action',
  'sun.util.calendar',
)
OPENS = [f'--add-opens=java.base/{package}=ALL-UNNAMED' for package in _OPENED]
